//! The words in which earlier versions said what this version says. An upgrade writes no status only because a message reads better
//! now: the stored message stays until its condition changes for another reason.
//!
//! The table can go with the last version that wrote the old words, v0.

/// A part of a message of this version, and the words of earlier versions for it.
const REWORDED: [(&str, &str); 74] = [
    ("here or in the configuration file, which has no sandboxes.", "here or in the configuration file."),
    ("it is a setting of another backend", "the key is unknown; it is kept in the effective configuration"),
    (" The step is the framework's for this type; init.profile: None leaves it out.", ""),
    ("Nothing is in progress.", "Nothing is on its way."),
    ("No user action is needed.", "Nothing needs a person."),
    ("The session is not degraded.", "No sandbox is missed while the others go on."),
    ("The sandbox is not suspended.", "It is not suspended."),
    ("The session is not suspended.", "It is not suspended."),
    ("The agent is not suspended.", "It is not suspended."),
    ("The sandbox is ready.", "The sandbox can be worked in."),
    ("The sandbox is suspended", "It is suspended"),
    ("The sandbox has finished.", "It has finished."),
    ("The sandbox has a Pod of its own.", "It has a Pod of its own."),
    ("The sandbox has no init work.", "Nothing has to be done before it is ready."),
    ("The init work has succeeded.", "What was to be done before it is ready is done."),
    ("The init work is not known to have succeeded.", "What is to be done before it is ready is not known to be done."),
    ("The Pod was created from the present template.", "The Pod is made from the present template."),
    ("The Pod was not created from the sandbox's template.", "The Pod is not made from a template of ours."),
    ("the next Pod uses the new template.", "the next start takes the change."),
    ("The sandbox is attached to the Pod ", "It works in the Pod "),
    (" has not allowed the sandbox to attach; to allow it: kubectl annotate", " has not agreed: kubectl annotate"),
    ("The sandbox is not restarted (restart.policy: Never).", "It is not started again (restart.policy: Never)."),
    ("The sandbox was restarted ", "It was started again "),
    ("annotation aigise.dev/restart to restart it.", "annotation aigise.dev/restart to start it."),
    (
        "Fix the initialiser, then change the template or the annotation aigise.dev/restart to restart the sandbox; with init.skip, the sandbox starts without its initialiser.",
        "Mend it, then change the template or the annotation aigise.dev/restart to start it; init.skip starts it without.",
    ),
    ("The initialiser has been running since ", "The initialiser runs since "),
    ("in the sandbox shows its progress.", "in the sandbox says how far it is."),
    (
        "The container runs, but its readinessProbe has not succeeded yet; the events of the Pod show why.",
        "The container runs and its readinessProbe has not succeeded; its events have the probe's words.",
    ),
    ("No node fits the Pod now: ", "No node fits now: "),
    ("The Pod waits for a claim: ", "Waits for a claim: "),
    ("The sandbox depends on ", "It depends on "),
    (" failed. The initialiser starts when every dependency is ready.", " failed; it goes on when that is ready."),
    (
        "The initialiser starts when these sandboxes are ready: ",
        "Its initialiser begins when the sandboxes it depends on are ready: ",
    ),
    (
        "The session is suspended or expired. The initialiser had failed;",
        "Its session is suspended or expired. Its initialiser had failed;",
    ),
    (
        "The session is suspended or expired; the agent continues when the session does.",
        "Its session is suspended or expired; it goes on with it.",
    ),
    ("The session is suspended or expired.", "Its session is suspended or expired."),
    ("The session is suspended until", "It is suspended until"),
    ("The session was idle and is suspended", "It was idle and is suspended"),
    ("; the volumes are kept.", "; the volumes stay."),
    ("The volumes hold the files of their sources.", "The volumes hold what their sources gave."),
    ("Fix the source; staging is retried.", "Mend the source, and it is tried again."),
    ("The session has no lifetime limit.", "It has no end."),
    ("The lifetime of the session ends at ", "Its time ends at "),
    (
        "The lifetime of the session is over; its Pods are gone, and so are the volumes that are not retained. A longer lifetime.ttl starts the session again.",
        "Its time is over; its Pods are gone, and the volumes that were not to be kept. A longer lifetime.ttl starts it anew.",
    ),
    ("The lifetime of the session is over", "Its time is over"),
    ("The session continues unchanged.", "The session goes on as it was."),
    ("The session waits for the key ", "Waits for the key "),
    (", from which its configuration is read.", ", which the configuration is made of."),
    ("These keys have no effect: ", "Without effect: "),
    (
        "there is no Docker command line; use podTemplate for settings without a field of their own",
        "there is no Docker command line; podTemplate says what has no field of its own",
    ),
    ("this is not valid TOML", "this is no TOML"),
    (
        "everybody could read the secret here; put secrets into `environment`",
        "a secret would stand where everybody can read it; secrets go into `environment`",
    ),
    (
        "a sandbox runs untrusted code and must not be privileged. Leave the field out, or run the operator with ",
        "a sandbox runs code that nobody trusts and is not privileged. Leave it out, or have the operator run with ",
    ),
    (
        "past the network policy of its session. Leave the field out, or run the operator with ",
        "past the policy of its session. Leave it out, or have the operator run with ",
    ),
    (
        "this operator does not know this field of a Pod; check the spelling",
        "the Pods that this operator knows have no such field; check the spelling",
    ),
    (" which is a cycle.", " which is a circle."),
    ("The session does not exist.", "The session is not there."),
    ("The agent waits for the session ", "Waits for the session "),
    ("The agent waits for its parent, ", "Waits for its parent, "),
    ("The agent waits until these sandboxes", "Waits until these sandboxes"),
    (" does not exist yet.", " is not there yet."),
    (" is gone; this agent was kept.", " is gone and left this agent behind."),
    (", which the agent requires, has failed.", " has failed, and the agent needs it."),
    ("The agent's Pod is not ready: ", "The Pod that runs it is on its way: "),
    ("The program of the agent has ended with exit code 0.", "The program that ran it has ended with 0."),
    ("The agent is paused until", "It is paused until"),
    ("The agent is stopped until spec.desiredStatus is active.", "It is stopped, since spec.desiredStatus says so."),
    ("The agent has no parent.", "It has no parent."),
    ("The session has the tools and skills that the agent uses.", "The session has the tools and skills that it uses."),
    (
        "The tools and skills of the session are known when its volumes are filled.",
        "What the session has is known when its volumes are filled.",
    ),
    ("All required sandboxes are ready: ", "All of these are ready: "),
    ("Not all required sandboxes are ready: ", "Not all of these are ready: "),
    ("All agents are active, paused or stopped (", "All agents are as they are wanted ("),
    (" exists.", " is there."),
];

/// Whether a stored message says the same as a message of this version, in earlier words.
pub(super) fn says_the_same(stored: &str, message: &str) -> bool {
    stored == message
        || REWORDED.iter().fold(message.to_string(), |text, (now, then)| text.replace(now, then)) == stored
}
