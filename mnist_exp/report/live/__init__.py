"""The report as a page that keeps itself up to date while the sweep runs."""
