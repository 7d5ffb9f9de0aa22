"""What `cvjobs doctor` looks at: one module a subject, each with `check()`; nothing is changed."""
