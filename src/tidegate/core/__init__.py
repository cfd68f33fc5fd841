"""The decision itself: pure, seeded, typed. No I/O, no clock, no logging."""
