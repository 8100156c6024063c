rule configuration:
    output:
        report(
            "results/{run}/config.yaml",
            caption="../report/config.rst",
            category="Configuration",
            labels={"content": "merged configuration"},
        ),
    log:
        "results/{run}/logs/configuration.log",
    benchmark:
        "results/{run}/benchmarks/configuration.tsv"
    conda:
        "../../environment.yml"
    params:
        config=lambda w: complete,
    shell:
        "lspipe config --json {params.config:q} > {output:q}.new 2> {log:q} && mv {output:q}.new {output:q}"


# What the table has, by case and name; the training seeds of a network share a name.
TABLED = {
    file: [case, networks[p][0].name if p in networks else p]
    for case, predictors in evaluated.items()
    for p, file in zip(predictors, errors(case, predictors))
}


rule table:
    input:
        TABLED.keys(),
    output:
        csv="results/{run}/tables/mase.csv",
        md="results/{run}/tables/mase.md",
        html=report(
            "results/{run}/tables/mase.html",
            caption="../report/table.rst",
            category="Results",
            labels={"content": "table of MASE", "case": "all"},
        ),
    log:
        "results/{run}/logs/table.log",
    benchmark:
        "results/{run}/benchmarks/table.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w, input: options(
            input=[[*row, file] for row, file in zip(TABLED.values(), input)]
        ),
    shell:
        "lspipe table {params.options:q} -- {output:q} 2>&1 | tee {log:q}"


# The first page of the report, which report/workflow.rst includes. Its figures are of the first case.
FIRST = {
    "convergence": "Mean error against Green applications (left) and time (right); cg is the solver stopped early."
    " Lower and further left is better",
    "mase": "MASE over the test microstructures: histograms and cumulative curves. Further left is better",
    "gallery": f"Test microstructures (dark: phase 1) and their true {cfg.physics.fields[0]} over its macroscopic value",
}


rule summary:
    input:
        table="results/{run}/tables/mase.csv",
        models=[trained(predictor)[0] for predictor in networks],
        weights=[trained(predictor)[1] for predictor in networks],
        figures=[
            f"results/{cfg.run}/figures/{figure}/{next(iter(learned))}.png"
            for figure in FIRST
        ],
    output:
        "results/{run}/summary.html",
    log:
        "results/{run}/logs/summary.log",
    benchmark:
        "results/{run}/benchmarks/summary.tsv"
    conda:
        "../../environment.yml"
    params:
        config=lambda w: complete,
        options=lambda w, input: options(
            model=named(networks, input.models),
            figure=[
                [f"{caption} ({next(iter(learned))})", file]
                for caption, file in zip(FIRST.values(), input.figures)
            ],
        ),
    shell:
        "lspipe summary --config {params.config:q} --table {input.table:q} {params.options:q} -- {output:q}"
        " 2>&1 | tee {log:q}"


# What each figure of a case is made of, and for which predictors.
FIGURES = {
    "learning_curves": ("Training", "learning curves", metrics, trained_on),
    "mase": ("Results", "distribution of MASE", errors, evaluated),
    "convergence": ("Results", "error against cost", errors, evaluated),
    "trends": (
        "Results",
        "MASE by volume fraction and grain size",
        errors,
        evaluated,
    ),
    "gallery": (
        "Fields",
        f"microstructures and their {cfg.physics.fields[0]}",
        examples,
        solver,
    ),
    "distributions": (
        "Fields",
        f"distribution of the {cfg.physics.fields[0]}",
        examples,
        evaluated,
    ),
    "interfaces": ("Fields", "error near interfaces", examples, evaluated),
}

for figure, (category, content, files, of) in FIGURES.items():

    rule:
        name:
            figure
        input:
            lambda w, files=files, of=of: files(w.case, of[w.case]),
        output:
            report(
                f"results/{{run}}/figures/{figure}/{{case}}.png",
                caption=f"../report/{figure}.rst",
                category=category,
                labels={"content": content, "case": "{case}", "network": "all"},
            ),
            f"results/{{run}}/figures/{figure}/{{case}}.pdf",
        log:
            f"results/{{run}}/logs/{figure}/{{case}}.log",
        benchmark:
            f"results/{{run}}/benchmarks/{figure}/{{case}}.tsv"
        conda:
            "../../environment.yml"
        params:
            options=lambda w, input, of=of: options(input=named(of[w.case], input)),
            figure=figure,
        shell:
            "lspipe figure {params.options:q} -- {params.figure:q} {output:q} 2>&1 | tee {log:q}"


# Of a single predictor.
FIGURES_OF_ONE = {
    "slices": "truth, prediction, error",
    "iterates": "iterates pass by pass",
    "density": f"predicted against true {cfg.physics.fields[0]}",
}

for figure, content in FIGURES_OF_ONE.items():

    rule:
        name:
            figure
        input:
            lambda w: examples(w.case, [w.predictor]),
        output:
            report(
                f"results/{{run}}/figures/{figure}/{{predictor}}/{{case}}.png",
                caption=f"../report/{figure}.rst",
                category="Fields",
                labels={
                    "content": content,
                    "case": "{case}",
                    "network": "{predictor}",
                },
            ),
            f"results/{{run}}/figures/{figure}/{{predictor}}/{{case}}.pdf",
        log:
            f"results/{{run}}/logs/{figure}/{{predictor}}/{{case}}.log",
        benchmark:
            f"results/{{run}}/benchmarks/{figure}/{{predictor}}/{{case}}.tsv"
        conda:
            "../../environment.yml"
        params:
            options=lambda w, input: options(input=named([w.predictor], input)),
            figure=figure,
        shell:
            "lspipe figure {params.options:q} -- {params.figure:q} {output:q} 2>&1 | tee {log:q}"


# What the report shows, and all that this is made of.
SHOWN = [
    f"results/{cfg.run}/config.yaml",
    f"results/{cfg.run}/tables/mase.html",
    f"results/{cfg.run}/summary.html",
    [
        f"results/{cfg.run}/figures/{kind}/{case}.png"
        for kind in FIGURES
        for case in (trained_on if kind == "learning_curves" else learned)
    ],
    [
        f"results/{cfg.run}/figures/{kind}/{predictor}/{case}.png"
        for kind in FIGURES_OF_ONE
        for case, predictors in learned.items()
        for predictor in predictors
    ],
]


# Snakemake itself makes the report, of what the other jobs have made. The lock is that of the run.
rule report:
    input:
        SHOWN,
        lambda w: STUDIED if is_studied() else [],
    output:
        "results/{run}/report.html",
    log:
        "results/{run}/logs/report.log",
    benchmark:
        "results/{run}/benchmarks/report.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        # Not recorded, being a function of the input: the report of a run that is called in another way is the same.
        same=lambda w, input: [
            *("--snakefile", workflow.main_snakefile),
            *("--profile", "none", "--workflow-profile", "none", "--rerun-incomplete"),
            *flagged("--configfile", workflow.overwrite_configfiles),
            *flagged("--config", workflow.config_settings.config_args),
        ],
    shell:
        "snakemake {params.same:q} --nolock --quiet host --report {output:q}.new.html -- {input:q} 2>&1 | tee {log:q}"
        " && mv {output:q}.new.html {output:q} && echo Report: {output:q}"
