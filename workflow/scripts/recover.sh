#!/usr/bin/env bash
# After Snakemake has died (its login node too): cancels the jobs that it left in SLURM, waits until the last has ended,
# and unlocks the folder. Then start the run again: what the jobs have finished and saved is taken over.
#
#     workflow/scripts/recover.sh        in the folder where Snakemake was started
#
# Jobs left alone would write the same files as those of the new run. Other jobs of yours are not touched.
set -euo pipefail
folder=$(pwd -P)

# Snakemake's own, that is; not that of its jobs, should they run on this machine.
for process in $(pgrep -u "$(id -u)" -f '(-m |/)snakemake( |$)'); do
    if [[ $(readlink "/proc/$process/exe") == */python* && $(readlink "/proc/$process/cwd") == "$folder" ]] &&
        ! grep -qz -e '^--mode$' "/proc/$process/cmdline"; then
        echo "Snakemake still works in $folder, as process $process: end it first (kill -INT $process)" >&2
        exit 1
    fi
done

# Snakemake gives its jobs a comment that names their rule or group, and the folder it works in.
strays() {
    squeue --noheader --user "$(id -un)" --format '%A|%k|%Z' |
        while IFS='|' read -r job comment where; do
            if [[ $comment =~ ^(rule|group)_ && $where == "$folder" ]]; then echo "$job"; fi
        done
}
left=$(strays)
while [ -n "$left" ]; do
    echo "Cancelling, and waiting for:" $left
    scancel --quiet $left
    sleep 1
    left=$(strays)
done
snakemake --unlock "$@"
