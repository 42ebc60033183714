"""What a run was, on one page: read (run directory -> plain numbers) · thin (long curves) · events · charts (SVG) · table · page (HTML)."""
