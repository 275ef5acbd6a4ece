"""The command line: every command of operators and users, over the same parts as production.

`app` is the table of commands; `serve` runs a process of the product, `operate` is for whoever
runs it, `use` speaks HTTP to it, `demo` shows it. Runs with the rights of whoever typed it.
"""
