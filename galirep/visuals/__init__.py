"""What people look at: grids, thumbnails, projections, the shell of an HTML page."""
