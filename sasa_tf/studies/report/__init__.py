"""The report of a study, from its JSON lines alone: Markdown, plots and a static HTML page."""
