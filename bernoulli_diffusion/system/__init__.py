"""The machine: errors, files, signals, devices, command lines."""
