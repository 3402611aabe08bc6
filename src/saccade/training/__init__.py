"""What every Lightning task shares."""
