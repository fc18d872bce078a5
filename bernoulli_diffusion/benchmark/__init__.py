"""Benchmark: python -m bernoulli_diffusion.benchmark [--quick] [--json FILE]

What the program costs, beside what it could cost on this machine. Prints Markdown tables, those of
docs/performance.md. What is compared runs in turn, A B A B ..., so that whatever disturbs one disturbs
the other too; a time is the median over the rounds, a ratio the median of the rounds' ratios.

measure.py times, parts.py says what, alone.py what is done in processes of its own, report.py makes
tables and a plot of it.
"""
