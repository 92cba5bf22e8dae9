"""The widgets: unit gallery, IoU heatmap, intervention canvas, and the explorer that links them."""
