"""Training logs of any tool, read into curves: files, formats, which number is the loss, and where runs begin."""
