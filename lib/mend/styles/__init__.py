"""Style sheets and the page template of what mend shows; package data."""
