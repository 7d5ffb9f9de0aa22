"""The options of commands: dataclasses, command lines and cvjobs.yaml."""
