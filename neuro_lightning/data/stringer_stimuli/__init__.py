"""Responses of mouse V1 to gratings and natural images, recorded in the laboratory of Stringer and Pachitariu."""
