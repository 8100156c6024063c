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


rule table:
    input:
        plan.table.keys(),
    output:
        csv="results/{run}/tables/mase.csv",
        md="results/{run}/tables/mase.md",
        txt="results/{run}/tables/conclusion.txt",
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
        options=lambda w, input: words(
            input=[[*row, file] for row, file in zip(plan.table.values(), input)]
        ),
    shell:
        "lspipe table {params.options:q} -- {output:q} 2>&1 | tee {log:q}"


# Captions of the figures on the first page of the report, which report/workflow.rst includes.
CAPTIONS = dict(
    zip(
        FIRST_PAGE,
        (
            "Mean error against Green applications (left) and time (right); cg is the solver stopped early."
            " Lower and further left is better",
            "MASE over the test microstructures: histograms and cumulative curves. Further left is better",
            f"Test microstructures ({plan.legend}) and their true {cfg.physics.field_names[0]} over its macroscopic value",
        ),
        strict=True,
    )
)


rule summary:
    input:
        table="results/{run}/tables/mase.csv",
        models=[plan.model(p.folder)[0] for p in plan.networks],
        weights=[plan.model(p.folder)[1] for p in plan.networks],
        figures=[
            f"{plan.results}/figures/{figure}/{plan.first_case}.png"
            for figure in CAPTIONS
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
        options=lambda w, input: words(
            model=[
                [p.label, file]
                for p, file in zip(plan.networks, input.models, strict=True)
            ],
            figure=[
                [f"{caption} ({plan.first_case})", file]
                for caption, file in zip(CAPTIONS.values(), input.figures)
            ],
        ),
    shell:
        "lspipe summary --config {params.config:q} --table {input.table:q} {params.options:q} -- {output:q}"
        " 2>&1 | tee {log:q}"


for page, figures in plan.pages.items():

    rule:
        name:
            page
        input:
            # The store of load paths exists before its shards do.
            solved=lambda w, figures=figures: (
                plan.solved_lists([w.case], "test")
                if any(FIGURES[figure].source == "paths" for figure in figures)
                else []
            ),
            files=lambda w, figures=figures: [
                file for _, file in plan.find_sources(figures, **w)
            ],
        output:
            [
                file
                for figure, shown in [(name, FIGURES[name]) for name in figures]
                for file in (
                    report(
                        f"results/{{run}}/figures/{figure}/{shown.target}.png",
                        caption=f"../report/{figure}.rst",
                        category=shown.category,
                        labels={
                            "content": shown.content.format(
                                field=cfg.physics.field_names[0]
                            ),
                            "case": "{case}",
                            "network": shown.network,
                        },
                    ),
                    f"results/{{run}}/figures/{figure}/{shown.target}.pdf",
                )
            ],
        log:
            f"results/{{run}}/logs/{page}/{FIGURES[figures[0]].target}.log",
        benchmark:
            f"results/{{run}}/benchmarks/{page}/{FIGURES[figures[0]].target}.tsv"
        wildcard_constraints:
            case="|".join(re.escape(w["case"]) for w in plan.wildcards(figures[0])),
        conda:
            "../../environment.yml"
        params:
            options=lambda w, input, figures=figures: words(
                input=[
                    [label, file]
                    for (label, _), file in zip(
                        plan.find_sources(figures, **w), input.files, strict=True
                    )
                ]
            ),
            figures=lambda w, output, figures=figures: [
                word
                for i, figure in enumerate(figures)
                for word in (figure, *output[2 * i : 2 * i + 2])
            ],
        shell:
            "lspipe figure {params.options:q} -- {params.figures:q} 2>&1 | tee {log:q}"


SHOWN = [
    f"{plan.results}/config.yaml",
    f"{plan.results}/tables/mase.html",
    f"{plan.results}/summary.html",
    plan.figures,
]


# Snakemake itself makes the report. The run holds the lock of the folder, hence --nolock.
rule report:
    input:
        shown=SHOWN,
        conclusion="results/{run}/tables/conclusion.txt",
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
        # Snakemake does not record parameters that depend on the input: a run with other options keeps the report.
        same=lambda w, input: [
            *("--snakefile", workflow.main_snakefile),
            *("--profile", "none", "--workflow-profile", "none", "--rerun-incomplete"),
            *flagged("--configfile", workflow.overwrite_configfiles),
            *flagged("--config", workflow.config_settings.config_args),
        ],
    shell:
        "snakemake {params.same:q} --nolock --quiet host --report {output:q}.new.html -- {input.shown:q} 2>&1 | tee {log:q}"
        " && mv {output:q}.new.html {output:q} && echo Report: {output:q} && cat {input.conclusion:q}"
