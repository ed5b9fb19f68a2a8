package readiness

// ObjectState is how an object that a rule requires is.
type ObjectState struct {
	// Known says that it was looked for.
	Known bool
	// Found says that it is there and not being deleted, and Holds that the expression is true of it.
	Found, Holds bool
	// Problem is why it is not known, or why the expression does not hold; "" for none.
	Problem string
}

// checkObjects asks for the objects of the cluster that the rule requires.
func checkObjects(r *Rule, f *Facts, v *verdict) {
	for i := range r.Objects {
		want := &r.Objects[i]
		var have ObjectState
		if f.Objects != nil {
			have = f.Objects(want)
		}
		switch {
		case !have.Known:
			v.miss(ReasonObjectUnknown, want.String(), "needs %s, which was not looked at%s", want, colon(have.Problem))
		case !have.Found:
			v.miss(ReasonObjectMissing, want.String(), "%s does not exist%s", want, colon(have.Problem))
		case !have.Holds:
			v.miss(ReasonObjectExpression, want.String(), "%s is not as it must be%s", want, colon(have.Problem))
		}
	}
}

func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// checkDevices asks for the devices that DRA drivers have published.
func checkDevices(r *Rule, f *Facts, v *verdict) {
	for _, want := range r.Devices {
		have := f.Devices[want.Driver]
		switch {
		case f.Partial:
			v.miss(ReasonDevicesUnknown, want.Driver, "needs %d devices of DRA driver %s, whose ResourceSlices were not looked at", want.Min, want.Driver)
		case have < want.Min:
			v.miss(ReasonDevicesMissing, want.Driver, "DRA driver %s has published %d devices for the node, %d are needed", want.Driver, have, want.Min)
		}
	}
}
