"""File formats that several datasets share: NWB, MATLAB and numpy files, read without running anything in them."""
