"""Review: what a recompile changes, edits that survive it, and the difference of two folders."""
