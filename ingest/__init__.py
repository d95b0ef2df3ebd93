"""From sources to decoded, identified images."""
