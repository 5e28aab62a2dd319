"""ServerApp and ClientApp of a federation in processes of its own.

All machines have the same configuration and public pool. A node is told its owner's examples by --node-config, the
server its folder by --run-config.
"""

from edgestill.distill.federation.apps import make_client, make_server
from edgestill.flows.federation.owner import keep_weights, load_client
from edgestill.flows.federation.server import serve

server = make_server(serve)
client = make_client(load_client, keep_weights)
