"""Where files live: folders, object stores and web servers behind small interfaces."""
