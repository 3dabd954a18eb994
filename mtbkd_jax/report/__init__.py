"""A report of finished runs that people read: one HTML page that needs nothing else.

    facts      what the files of a run say, checked
    shown      the examples that can be shown, with their pictures or texts
    judgement  what the student says of them, and how good that is
    pictures   images and figures as markup
    markup     text as HTML, escaped
    tables, sections, page    the page, from the smallest part to the whole

The page takes nothing from the network and nothing in it runs but one script of ours, whose digest its content security
policy names; what comes from a user's files is text in it. The same runs and data give the same page.
"""

from mtbkd_jax.report.page import report_page

__all__ = ["report_page"]
