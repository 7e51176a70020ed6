import time
from tests.functional.guests import NbdGuest
from tests.functional.site import MIB
def test_outage_counts_as_idle(site, base, serve):
    site.configure(base_reconnect_seconds=60, recording_idle_seconds=4)
    server = serve(base)
    with NbdGuest(site, site.record(server.uri)) as guest:
        guest.require(base, 0, 2 * MIB)
        server.stop()
        guest.begin(8 * MIB, MIB)
        time.sleep(8)
        print(site.show())
        server.start()
        guest.finish(base, 8 * MIB, MIB)
        guest.require(base, 0, 16*MIB)
        time.sleep(1)
        print(site.show())
