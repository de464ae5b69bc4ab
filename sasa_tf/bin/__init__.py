"""Programs: thin absl-flag front ends of the packages."""
