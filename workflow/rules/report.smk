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
        config=cfg.model_dump_json(),
    shell:
        "lspipe config --json {params.config:q} > {output}.new 2> {log} && mv {output}.new {output}"


rule table:
    input:
        [
            file
            for case, predictors in evaluated.items()
            for file in errors(case, predictors)
        ],
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
        options=options(
            of=[
                [case, networks[p][0].name if p in networks else p, file]
                for case, predictors in evaluated.items()
                for p, file in zip(predictors, errors(case, predictors))
            ]
        ),
    shell:
        "lspipe table {output} {params.options} 2>&1 | tee {log}"


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
        options=lambda w, input: options(
            config=cfg.model_dump_json(),
            model=named(networks, input.models),
            figure=[
                [f"{caption} ({next(iter(learned))})", file]
                for caption, file in zip(FIRST.values(), input.figures)
            ],
        ),
    shell:
        "lspipe summary {output} --table {input.table} {params.options} 2>&1 | tee {log}"


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
            options=lambda w, input, of=of: options(of=named(of[w.case], input)),
            figure=figure,
        shell:
            "lspipe figure {params.figure} {output} {params.options} 2>&1 | tee {log}"


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
            options=lambda w, input: options(of=named([w.predictor], input)),
            figure=figure,
        shell:
            "lspipe figure {params.figure} {output} {params.options} 2>&1 | tee {log}"
