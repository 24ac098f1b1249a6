"""The report of a run: `report.html`, `report.md` with pictures, `report.csv`, made from the run folder at any time.

* `content`     all that it says, in words and numbers
* `summary`     the sentences at its top
* `effects`     what each setting does to the score, with intervals
* `first`       the first screen: the leaders, their settings, the effects
* `front`       with several objectives, the first against each of the others
* `progress`    of a search, the scores in the order of proposals
* `importance`  how much each setting of a random or learning search matters, and `scatter`, the score against each
* `mistakes`    what the winner gets wrong, class by class and against the runner-up; its confusion is a `heat_map`
* `pictures`    curves, rungs and parallel coordinates, drawn with `svg`
* `table`       the ranking, as cells and as CSV
* `data`        what the page's script draws from, as JSON
* `page`        the HTML file, from `assets/`: its template, styles, scripts and uPlot
* `markdown`    the same as Markdown
* `write`       writes all of it into the run folder, or one of them to a file
"""

from raysweep.report.write import write_report, write_report_to

__all__ = ["write_report", "write_report_to"]
