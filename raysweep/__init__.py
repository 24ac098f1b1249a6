"""raysweep: one sweep file and one command train a grid of image classifiers."""
