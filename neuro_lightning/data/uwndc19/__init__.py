"""The UW Neural Data Challenge 2019: 18 neurons of macaque V4 and 601 images."""
