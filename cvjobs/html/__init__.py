"""Pages that a command leaves behind: one self-contained HTML file each, without scripts and without a network."""
