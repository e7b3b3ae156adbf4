"""Tables as statisticians have them: columns of unlike kinds, their labels, their scales, and how rows are divided."""
