// CoreDNS with the few plugins that a cluster's DNS needs: names of Services and pods, caching, health. It asks no server
// outside of the cluster. Its configuration comes by `-conf FILE`, as in every CoreDNS.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// The order in which a query passes through them: the template, which says that there is no such name, comes last.
	dnsserver.Directives = []string{
		"bind", "health", "ready", "errors", "log", "cache", "hosts", "kubernetes", "template",
	}
	coremain.Run()
}
