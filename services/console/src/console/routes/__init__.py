"""The routes of the pages, a file for each group of the navigation."""
