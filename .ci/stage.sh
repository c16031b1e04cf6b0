# Sourced by the scripts beside it: the title of a part, when it began, and what the script had cost by then.
stage() { echo "== $1 (after $SECONDS s; $(processor_s) s of processor time)"; }
processor_s() { awk '{ sub(/.*\) /, ""); printf "%d", ($12 + $13 + $14 + $15) / 100 }' /proc/$$/stat 2>/dev/null || echo "?"; } # with children that ended
