"""The commands of `watchkeeper`, by what they are for."""
