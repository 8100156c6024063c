rule microstructures:
    input:
        images=images,
        # The blocks of a scan are chosen apart from those of the earlier splits.
        apart=lambda w: [
            f"results/{w.run}/microstructures/{split}.zarr/zarr.json"
            for split in plan.earlier_splits(w.split)
        ],
    output:
        store="results/{run}/microstructures/{split}.zarr/zarr.json",
        # The store exists before its shards do; this file marks that all of them are written.
        done=touch("results/{run}/microstructures/{split}.done"),
    log:
        "results/{run}/logs/microstructures/{split}.log",
    benchmark:
        "results/{run}/benchmarks/microstructures/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        command="import" if images else "generate",
        options=lambda w: words(**plan.microstructures(w.split)) + plan.cut,
        files=plan.image_files,
        version=DATA_VERSION,
    shell:
        "lspipe {params.command:q} {params.options:q} --replace -- {output.store:q} {params.files:q} 2>&1 | tee {log:q}"


rule allocate:
    input:
        cells="results/{run}/microstructures/{split}.zarr/zarr.json",
        done="results/{run}/microstructures/{split}.done",
        truth=lambda w: truth.get(w.case, []),
    output:
        "results/{run}/fields/{case}/{split}.zarr/zarr.json",
    log:
        "results/{run}/logs/allocate/{case}/{split}.log",
    benchmark:
        "results/{run}/benchmarks/allocate/{case}/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w: words(**plan.problem(w.case)),
        version=DATA_VERSION,
    shell:
        "lspipe allocate {params.options:q} --replace -- {output:q} {input.cells:q} 2>&1 | tee {log:q}"


# Each job of a split has its own rule, since the number of a rule's outputs is fixed. Snakemake would delete outputs
# before a job; `update` keeps them, and `lspipe solve` skips the shards that are done.
# Linear problems and load paths also have rules of their own, because their files of strain have other names.
linear = {*cfg.loaded} - {*cfg.paths}
for is_path, split in product((False, True), cfg.counts):
    for job, shards in enumerate(cfg.jobs_of(split)):

        rule:
            name:
                f"{'follow' if is_path else 'solve'}_{split}_{job}"
            input:
                plan.stores("{case}", split),
            output:
                receipts=update(plan.receipts("{case}", split, shards)),
                strain=update(plan.strain("{case}", split, shards, is_path)),
            log:
                f"results/{cfg.run}/logs/solve/{{case}}/{split}/{job}.log",
            benchmark:
                f"results/{cfg.run}/benchmarks/solve/{{case}}/{split}/{job}.tsv"
            wildcard_constraints:
                case="|".join(map(re.escape, cfg.paths if is_path else linear)) or "-",
            conda:
                "../../environment.yml"
            threads: min(8, len(shards))
            resources:
                mem_mb=lambda w, threads, attempt, split=split: math.ceil(
                    attempt * plan.solver_memory(threads, split)
                ),
            shell:
                "lspipe solve --workers {threads:q} -- {input:q} {output.receipts:q} 2>&1 | tee {log:q}"


# Training and evaluation wait for this file, not for the shards. A shard that is solved again starts neither of them.
rule gather:
    input:
        lambda w: plan.strain(w.case, w.split, cfg.shards_of(w.split)),
        receipts=lambda w: plan.receipts(w.case, w.split, cfg.shards_of(w.split)),
    output:
        "results/{run}/fields/{case}/{split}.receipts/all.jsonl",
    log:
        "results/{run}/logs/gather/{case}/{split}.log",
    benchmark:
        "results/{run}/benchmarks/gather/{case}/{split}.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "for receipt in {input.receipts:q}; do tr -d '\\n' < \"$receipt\"; echo; done > {output:q}.new 2> {log:q}"
        " && mv {output:q}.new {output:q}"


rule homogenize:
    input:
        cells="results/{run}/microstructures/test.zarr/zarr.json",
        done="results/{run}/microstructures/test.done",
    output:
        store="results/{run}/effective/{case}.zarr/zarr.json",
        table="results/{run}/effective/{case}.csv",
    log:
        "results/{run}/logs/homogenize/{case}.log",
    benchmark:
        "results/{run}/benchmarks/homogenize/{case}.tsv"
    conda:
        "../../environment.yml"
    threads: min(8, len(cfg.shards_of("test")))
    resources:
        mem_mb=lambda w, threads, attempt: math.ceil(
            attempt * plan.solver_memory(threads)
        ),
    params:
        options=lambda w: words(**plan.homogenization(w.case)),
        version=DATA_VERSION,
    shell:
        "lspipe homogenize {params.options:q} --workers {threads:q} --replace --table {output.table:q}"
        " -- {input.cells:q} {output.store:q} 2>&1 | tee {log:q}"


rule tabulate_curves:
    input:
        lambda w: plan.solved_lists([w.case], "test"),
        store=lambda w: plan.stores(w.case, "test")[1],
    output:
        "results/{run}/curves/{case}.csv",
    log:
        "results/{run}/logs/curves/{case}.log",
    benchmark:
        "results/{run}/benchmarks/curves/{case}.tsv"
    conda:
        "../../environment.yml"
    params:
        version=DATA_VERSION,
    shell:
        "lspipe curves --table {output:q} -- {input.store:q} 2>&1 | tee {log:q}"
