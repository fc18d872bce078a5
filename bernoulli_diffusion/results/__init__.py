"""What a run leaves behind: numbers, verdicts, pages, pictures."""
