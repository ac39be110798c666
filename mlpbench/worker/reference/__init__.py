"""Reference codes, run in their own environments: label structures, and draw them by molecular dynamics."""
