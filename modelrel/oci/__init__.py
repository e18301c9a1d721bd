"""Container images and other artifacts as the Open Container Initiative defines them: written, read and moved by us.

`names` what an image is called, `media` the types of its parts, `content` what a part is and where parts are kept.
`registry` reads and `push` writes a repository in a registry; below them `connection` (with the table of what each
refusal means), `authorization`, `credentials`, `download` and `upload`.
"""
