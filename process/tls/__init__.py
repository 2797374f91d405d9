"""TLS of listeners and of the bridge as a client of the service.

settings -> files -> credentials   reads and proves certificates, keys and authorities, or names
                                   everything that is wrong with them
         -> watching               reads them again when they change
"""
