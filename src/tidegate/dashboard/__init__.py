"""What operators see: a process of its own that reads the journal, keeps an index of it, and answers pages."""
