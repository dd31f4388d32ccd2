//! What may answer what, after FIPA's interaction protocols (SC00026 to SC00035).

use caxton_events::conversation::Performative::{
    self, AcceptProposal, Agree, Cancel, Cfp, Confirm, Disconfirm, Failure, Inform, NotUnderstood, Propose,
    Query, Refuse, RejectProposal, Request, Subscribe,
};

/// Answers to each performative. Everything else is no answer but a message of its own.
const ANSWERS: &[(Performative, &[Performative])] = &[
    (Request, &[Agree, Refuse, Inform, Failure, NotUnderstood]),
    (Query, &[Agree, Refuse, Inform, Confirm, Disconfirm, Failure, NotUnderstood]),
    (Propose, &[AcceptProposal, RejectProposal, Propose, Failure, NotUnderstood]),
    (Cfp, &[Propose, Refuse, Failure, NotUnderstood]),
    (AcceptProposal, &[Inform, Failure, NotUnderstood]),
    (Agree, &[Inform, Failure, NotUnderstood]),
    (Subscribe, &[Agree, Refuse, Inform, Failure, NotUnderstood]),
    (Cancel, &[Inform, Failure, NotUnderstood]),
    (Inform, &[NotUnderstood]),
    (Confirm, &[NotUnderstood]),
    (Disconfirm, &[NotUnderstood]),
    (Refuse, &[NotUnderstood]),
    (RejectProposal, &[NotUnderstood]),
    (Failure, &[]),
    (NotUnderstood, &[]),
];

/// What may answer a message that does this.
pub fn answers_to(question: Performative) -> &'static [Performative] {
    ANSWERS.iter().find(|(known, _)| *known == question).map_or(&[], |(_, answers)| answers)
}

/// Whether `answer` may carry the `in_reply_to` of a message that does `question`. CANCEL is not among them: it comes
/// from the one who asked.
pub fn may_answer(question: Performative, answer: Performative) -> bool {
    answers_to(question).contains(&answer)
}

/// What its own sender can take back.
pub const fn may_cancel(question: Performative) -> bool {
    matches!(question, Request | Query | Propose | Cfp | Subscribe | AcceptProposal)
}
