package main

import clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

// clientcmdContext overrides the context's namespace where one is given.
func clientcmdContext(namespace string) clientcmdapi.Context {
	return clientcmdapi.Context{Namespace: namespace}
}
