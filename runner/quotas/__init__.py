"""How much a tenant may use: sizes of sandboxes, and what a tier permits. Arithmetic, no storage.

sizes     what one sandbox may use, by name, and a request's changes within a ceiling
tiers     what a tenant may use at a time, in a day and in all
standing  what it uses of that, and what is refused for it
waiting   what waits in the whole deployment, and whom a full one still accepts
"""
