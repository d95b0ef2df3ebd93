"""From features to influence."""
