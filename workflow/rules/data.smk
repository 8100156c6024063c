rule microstructures:
    input:
        images,
    output:
        store="results/{run}/microstructures/{split}.zarr/zarr.json",
        # The store is there before its shards are: this says that they are all written.
        done=touch("results/{run}/microstructures/{split}.done"),
    log:
        "results/{run}/logs/microstructures/{split}.log",
    benchmark:
        "results/{run}/benchmarks/microstructures/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        command="import" if images else "generate",
        options=lambda w: options(
            count=getattr(cfg.microstructures, w.split),
            **(
                {"first_image": cfg.first_image(w.split), **labels}
                if images
                else {"n": cfg.microstructures.n, "seed": cfg.seed}
            ),
            split=w.split,
            samples_per_shard=cfg.jobs.samples_per_shard,
        ),
        version=DATA_VERSION,
    shell:
        "lspipe {params.command:q} {params.options:q} --replace -- {output.store:q} {input:q} 2>&1 | tee {log:q}"


rule allocate:
    input:
        cells="results/{run}/microstructures/{split}.zarr/zarr.json",
        done="results/{run}/microstructures/{split}.done",
    output:
        "results/{run}/fields/{case}/{split}.zarr/zarr.json",
    log:
        "results/{run}/logs/allocate/{case}/{split}.log",
    benchmark:
        "results/{run}/benchmarks/allocate/{case}/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        options=lambda w: options(
            material=[list(m.model_dump().values()) for m in cfg.cases[w.case]],
            strain=[cfg.load.strain],
            **cfg.solver.model_dump(),
            samples_per_shard=cfg.jobs.samples_per_shard,
        ),
        version=DATA_VERSION,
    shell:
        "lspipe allocate {params.options:q} --replace -- {output:q} {input.cells:q} 2>&1 | tee {log:q}"


# A rule for each job of a split, since the number of a rule's outputs is fixed. What is there is updated, not removed
# first: `lspipe solve` goes on from the shards that are done, and leaves all of them be if nothing else has changed.
for split in SPLITS:
    for job, shards in enumerate(cfg.jobs_of(split)):

        rule:
            name:
                f"solve_{split}_{job}"
            input:
                stores("{case}", split),
            output:
                receipts=update(receipts("{case}", split, shards)),
                strain=update(strain("{case}", split, shards)),
            log:
                f"results/{cfg.run}/logs/solve/{{case}}/{split}/{job}.log",
            benchmark:
                f"results/{cfg.run}/benchmarks/solve/{{case}}/{split}/{job}.tsv"
            conda:
                "../../environment.yml"
            threads: min(8, len(shards))
            resources:
                mem_mb=solver_memory,
            shell:
                "lspipe solve --workers {threads:q} -- {input:q} {output.receipts:q} 2>&1 | tee {log:q}"


# Keeps a shard that is solved again from retraining: who needs the fields waits for this file, not for the shards.
rule gather:
    input:
        lambda w: strain(w.case, w.split, cfg.shards_of(w.split)),
        receipts=lambda w: receipts(w.case, w.split, cfg.shards_of(w.split)),
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
