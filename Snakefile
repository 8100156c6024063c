include: "workflow/Snakefile"


# An included rule is not the default by itself.
workflow.default_target = "all"
