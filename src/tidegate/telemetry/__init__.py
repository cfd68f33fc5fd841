"""What leaves the process about itself: journal, metrics, log."""
