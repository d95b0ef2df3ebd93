"""Attribution of whole galleries: the run, its tables, flags, shares, report and proof."""
