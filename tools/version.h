#ifndef TOOLS_VERSION_H
#define TOOLS_VERSION_H

/* Of the binary: release, then what of Kafka's protocol it follows. */
#define FLOTILLA_VERSION "0.1.0 (Kafka protocol level 4.3)"

#endif
