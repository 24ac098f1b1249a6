# What follows is the same in every job.
#
# Each node runs `ray start`, as one step of the job, and the sweep's driver runs beside it, here on the first node. A
# job has ports and a folder of its own for Ray, so that two jobs can share a node. Nothing outside of the job is
# stopped: its processes end with its step.
port=$((20000 + SLURM_JOB_ID % 1200 * 10)) # below those that Linux gives to connections
address_here() { # Ray's own way takes loopback where there is no default route
    local ip
    ip=$(getent ahostsv4 "$(hostname)" | awk '$1 !~ /^127[.]/ {print $1; exit}')
    echo "${ip:-$(hostname -I | awk '{print $1}')}"
}
here=$(hostname) ip=$(address_here)
log=slurm-$SLURM_JOB_NAME-$SLURM_JOB_ID.ray.out
export RAY_USAGE_STATS_ENABLED=0 RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9 # nothing leaves the site
export RAY_AUTH_MODE=token PYTHONUNBUFFERED=1
# Other users of the nodes are not to use this Ray. The file's token does for all nodes, though they may not see it.
if [ ! -s ~/.ray/auth_token ]; then
    (umask 077 && mkdir -p ~/.ray && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > ~/.ray/auth_token)
fi
RAY_AUTH_TOKEN=$(cat ~/.ray/auth_token)
export RAY_AUTH_TOKEN

# Slurm sends USR1 when the job's time is nearly up, and TERM when somebody stops it or a job of more weight comes: the
# driver is told, and its trials commit.
driver='' stops='' again='' late=''
stop() {
    stops=yes
    [ -z "$driver" ] || kill -TERM "$driver" 2> /dev/null
}
time_is_nearly_up() {
    echo "raysweep: the job's time is nearly up: trials commit, and the job goes back into the queue"
    again=yes
    stop
    # Longer than that a driver is not waited for: what was trained since its last commits is trained again.
    (sleep $((signal_seconds * 5 / 6)) && scontrol requeue "$SLURM_JOB_ID") &
    late=$!
}
trap stop TERM
trap time_is_nearly_up USR1
end() { # with this exit code, or in the queue again
    [ -z "$late" ] || kill "$late" 2> /dev/null
    kill -USR2 "$cluster" 2> /dev/null # which srun passes on; TERM would have it kill them
    for ((n = 0; n < 20; n++)); do     # a lost node does not answer; Slurm ends it with the job
        kill -0 "$cluster" 2> /dev/null || break
        sleep 1
    done
    if [ -n "$again" ] && [ "$1" = 130 ]; then
        scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script
    fi
    exit "$1"
}

on_a_node() {
    local folder=/tmp/raysweep-$SLURM_JOB_ID ray
    trap 'kill -TERM "$ray" 2> /dev/null; wait "$ray"; sleep 1; rm -rf "$folder"; exit' TERM USR2
    ulimit -n "$(ulimit -Hn)"
    local start=("${python[@]}" -m ray.scripts.scripts start --block --temp-dir "$folder"
        --node-ip-address "$(address_here)"
        --num-cpus "$SLURM_CPUS_ON_NODE" --num-gpus "$gpus" "${ray_options[@]}"
        --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port $((port + 3)))
    if [ "$SLURM_NODEID" = 0 ]; then
        start+=(--head --port "$port" --dashboard-port $((port + 1))
            --ray-client-server-port $((port + 2)))
    else
        until (exec 3<> "/dev/tcp/$ip/$port") 2> /dev/null; do sleep 1; done
        start+=(--address "$ip:$port")
    fi
    "${start[@]}" &
    ray=$!
    wait "$ray"
    # Ray has ended by itself. Without the first node's, the others would wait for ever. If that node is gone, so is the
    # script, and Slurm, which keeps a job for its other nodes, does not requeue it by itself.
    if [ "$SLURM_NODEID" = 0 ]; then
        scancel "$SLURM_JOB_ID.$SLURM_STEP_ID"
    elif ! (exec 3<> "/dev/tcp/$ip/$port") 2> /dev/null; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
}

there=$(declare -f address_here on_a_node && declare -p python gpus ray_options ip port)
srun --no-kill --kill-on-bad-exit=0 --wait=0 --output="$log" --open-mode=append bash -c "$there; on_a_node" 2>> "$log" &
cluster=$!
until (exec 3<> "/dev/tcp/$ip/$port") 2> /dev/null; do
    [ -z "$stops" ] || end 130
    if ! kill -0 "$cluster" 2> /dev/null; then
        echo "raysweep: Ray does not start on $here: $PWD/$log says why" >&2
        end 2
    fi
    sleep 1
done
echo "raysweep: Ray's dashboard: ssh -N -L 8265:127.0.0.1:$((port + 1)) $here; its token: ~/.ray/auth_token on $here"

"${python[@]}" -m raysweep "${sweep[@]}" --address "$ip:$port" --nodes "$nodes" &
driver=$!
[ -z "$stops" ] || stop
while kill -0 "$driver" 2> /dev/null; do wait "$driver"; done # a signal ends `wait` before the driver has ended
wait "$driver"
end $?
