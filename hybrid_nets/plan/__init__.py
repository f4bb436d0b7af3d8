"""Settings with which a bundle trains on somebody's own data set."""
